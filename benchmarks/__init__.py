"""Timings. They measure and never assert; tests never time."""
