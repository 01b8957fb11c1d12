"""What `viewgate doctor` checks: a module per server, each a list of checks. Changes nothing in any of them."""
