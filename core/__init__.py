"""Everything Pilothouse does without a window: runs, history, training, compression, inference, hardware."""
