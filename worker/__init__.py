"""The workers: Celery brings the doorbells, the drains apply commands, the look-out finds what no doorbell announced."""
