"""What happens during a training besides it: overlays, progress, loggers."""
