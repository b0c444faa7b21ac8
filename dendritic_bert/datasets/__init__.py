"""The data that models are trained and scored on."""
