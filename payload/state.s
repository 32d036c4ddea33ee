# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# All private variables. What lies between state_secrets and state_secrets_end is wiped when a session ends.

.include "gcm.inc"

.bss
.balign 16
.global state_phase
state_phase: .zero 4
.global state_features
state_features: .zero 4
.global state_head              # submissions completed, modulo 2^32; the ring only gets a copy
state_head: .zero 8
.global state_sequence          # of the next packet
state_sequence: .zero 8
.global state_pages             # moved in this session
state_pages: .zero 8
.global state_epoch
state_epoch: .zero 8
.global state_epoch_pages       # moved in this epoch
state_epoch_pages: .zero 8
.global state_bitmap_low        # words of the bitmap from low up to high may have bits set
state_bitmap_low: .zero 8
.global state_bitmap_high
state_bitmap_high: .zero 8

.balign 16
.global state_entry             # the submission at work, fetched once
state_entry: .zero sizeof.mh_submission
.global state_completion
state_completion: .zero sizeof.mh_completion
.global state_packet            # the packet at work, fetched once
state_packet: .zero sizeof.mh_packet
.global state_slot_packet       # where in the ring the packet and the data at work lie
state_slot_packet: .zero 8
.global state_slot_data
state_slot_data: .zero 8
.global state_bounce_used       # bytes of state_bounce that may hold plaintext
state_bounce_used: .zero 8

.balign 64
.global state_secrets
state_secrets:
.global state_page_key
state_page_key: .zero sizeof.gcm_key
.balign 16
.global state_schedule          # of the transport key, while a session starts
state_schedule: .zero AES256_SCHEDULE_BYTES
.global state_kdf_input
state_kdf_input: .zero sizeof.kdf_input
.balign 16
.global state_nonce
state_nonce: .zero MH_NONCE_BYTES
.global state_derived           # the page key, until its schedule is made
state_derived: .zero MH_KEY_BYTES
.global state_session
state_session: .zero MH_SESSION_BYTES
.global state_job
state_job: .zero sizeof.gcm_job
.global state_secrets_end
state_secrets_end:

.balign 4096
.global state_bounce            # an imported chunk, until its tag is verified
state_bounce: .zero MH_RING_SLOTS * MH_PAGE_BYTES
