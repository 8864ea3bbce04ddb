"""Chat models: full training of a tiny one from scratch, LoRA on a large one."""
