"""What clients of the commands rely on, held over real sockets against a real api, worker, PostgreSQL and Valkey."""
