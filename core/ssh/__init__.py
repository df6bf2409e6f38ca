"""Links to hosts: over SSH by paramiko, and to this machine; see ``core.contracts.links``."""
