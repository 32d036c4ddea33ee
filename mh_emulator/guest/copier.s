# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# A guest program that copies memory: rcx bytes from rsi to rdi.

.text
.global copier
copier:
    cld
    rep movsb
    hlt
