"""Pictures in, detections and drawings out."""
