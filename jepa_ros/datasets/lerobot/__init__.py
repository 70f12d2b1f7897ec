"""LeRobot dataset format v3.0 (https://huggingface.co/docs/lerobot/lerobot-dataset-v3): written, read and validated."""
