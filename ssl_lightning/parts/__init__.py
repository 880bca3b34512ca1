"""What methods are made of besides networks and losses: queues, clusterings."""
