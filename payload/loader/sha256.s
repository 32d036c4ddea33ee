# SPDX-License-Identifier: BSD-2-Clause-Patent

.text
.global sha256
.include "../sha256.inc"
