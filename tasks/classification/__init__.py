"""Stages of classifiers, of images and of texts."""
