"""What a config may say, how it is checked, and where former names have gone."""
