"""The model file: what the physicist means, validated once."""
