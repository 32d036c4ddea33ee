"""Coverage-guided fuzzing of the linked helper by its host, and of our readers by whoever writes files.

An input is a short string of bytes, and any is one: it says on which stage a host begins, and what it does
(`script`). It is played on an emulated machine with a peer that seals what a helper would take (`player`, `peer`),
and what has to hold is looked at after every run of a vCPU (`invariants`, `answers`). What an input reaches is
counted natively, edge by edge of the linked code (`edges`), and each answer of an operation in a phase counts as an
edge too. Inputs that reach something new are kept and changed further (`loop`, `mutators`); as few of them as reach
all are `corpus/`.

The machine under a stage is a ground: a guest with a mirror (`mirror_ground`), or one under SNP (`snp_ground`), whose
host can do more (`snp_host`, `kernel`, `es_host`) and whose guest is in one place (`whereabouts`). Other stages are
files that our own readers get (`subjects`, `file_player`), guided by the lines of Python that run (`lines`).

The loop is our own, and not AFL++'s. Its fork server would fork a process in which an engine, several hundred
thousand objects and DRAM live, for every input: that costs 20 ms of CPU time where bringing DRAM, page lists and
registers back costs 3 (`saved`). Its QEMU mode sees user processes, and its unicorn mode one engine with memory of
its own: the helper runs on two vCPUs, whose memory is encrypted, behind translations that this project makes. What is
left is the loop.
"""
