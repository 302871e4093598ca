"""Faults put into clean cases on purpose, so that the answer is known: of images and of labels."""
