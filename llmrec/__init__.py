"""One language model, fine-tuned with LoRA, that ranks a whole catalog exactly."""

__version__ = "0.1.0"
