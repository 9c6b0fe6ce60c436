"""A plugin as version 1 of the contract described it. It is frozen: nobody brings it up to date."""
