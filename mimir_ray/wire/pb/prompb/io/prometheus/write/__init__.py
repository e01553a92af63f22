"""Generated from protos/ by mimir_ray/wire/generate.py; do not edit."""
