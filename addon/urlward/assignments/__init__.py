"""Address assignments: which subscriber had an address or ports when, by leases, accounting and NAT logs."""
