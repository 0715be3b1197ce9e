"""The gateway: kernel rules, DNS steering, the service, and the pilot lab."""
