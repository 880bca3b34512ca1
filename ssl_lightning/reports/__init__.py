"""Pages of what a run did: charts, pictures, the state of its health in words, one file each without a server."""
