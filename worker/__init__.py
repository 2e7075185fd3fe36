"""The workers: Celery brings the doorbells, drains apply commands, the look-out finds what no doorbell announced."""
