"""From assembly sources to images: assembler, linker, page tables, schemes, writers."""
