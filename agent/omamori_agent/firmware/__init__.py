"""Firmware updates on the box: fetched, verified, written to the other slot, tried once, kept or undone.

`machine` decides, `window`, `floor` and `health_gate` hold its rules; `record` and `store` are what survives a power
cut; `sources`, `release`, `stream` and `fetch` get the bundle, `apply` unpacks it in a process of its own (`answer`);
`installer` and `boot_facts` ask and tell boot loader and RAUC, `restart` knows when; `report` tells the cloud; `part`
is the desired state's door, `worker` runs it all and `feature` puts it together. Nothing is imported here, so that
`apply` stays small.
"""
