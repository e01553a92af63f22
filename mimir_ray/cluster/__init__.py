"""What any role needs to live among others: rings, quorums, services and a transport."""
