# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# All private variables: a block for each vCPU, of which the linker makes as many as the image serves, and what they share.

.include "vcpu.inc"

# Names for maps and debuggers: those of the first vCPU.
.set here, 0
.macro variable name, offset
.zero (\offset) - here
.set here, \offset
.global \name
\name:
.endm

.section .vcpu
.balign 4096
variable vcpu_busy, vcpu.busy
variable vcpu_session, vcpu.session
variable vcpu_mask_schedule, vcpu.mask_schedule
variable vcpu_scalar, vcpu.scalar
variable vcpu_sequence, vcpu.bulk + lane.sequence
variable vcpu_page_key, vcpu.bulk + lane.page_key
variable vcpu_scratch, vcpu.scratch
.zero sizeof.vcpu - here

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
.global random_drawn            # how often hello has drawn: no start sets it back
random_drawn: .zero 64
