"""From the wire to a Change. A form of record is a module here."""
