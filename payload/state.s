# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# All private variables: a block for each vCPU, of which the linker makes as many as the image serves, and what they share.

.include "vcpu.inc"

.section .vcpu
.balign 4096
.zero vcpu.session
.global vcpu_session            # names for maps and debuggers: those of the first vCPU
vcpu_session: .zero vcpu.bulk + lane.sequence - vcpu.session
.global vcpu_sequence
vcpu_sequence: .zero sizeof.vcpu - vcpu.bulk - lane.sequence

.bss
.balign 64
.global session_generation      # odd: a session is alive; every start and every end counts it up
session_generation: .zero 64
.global session_record
session_record: .zero sizeof.record
.global session_epoch
session_epoch: .zero 64
.global session_progress
session_progress: .zero 64
