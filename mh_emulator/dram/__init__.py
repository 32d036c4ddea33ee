"""DRAM as one server has it: the memory controller's cipher, who sees what, what host processes map, the bus."""
