"""Predictions and ground truth to figures."""
