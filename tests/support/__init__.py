"""What the tests stand on: stock git and ssh, a real engine, a real server."""
