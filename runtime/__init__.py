"""What the api and the workers share: settings, logs, the doorbell and the announcements that pass between them."""
