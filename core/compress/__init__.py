"""Makes models smaller and faster, and judges what that cost by measuring."""
