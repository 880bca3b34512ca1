"""What methods are made of besides networks and losses: queue, center, Sinkhorn, k-means, masking, teacher."""
