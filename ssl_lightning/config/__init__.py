"""What a config may say, how it is checked, and where its former names have gone."""
