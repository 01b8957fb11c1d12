"""`viewgate drift`: the same changes published in each way, by services that are killed, and how far view and database part."""
