"""Training, distillation and sweeps of models."""
