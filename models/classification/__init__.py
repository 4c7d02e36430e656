"""Networks and data of classifiers."""
