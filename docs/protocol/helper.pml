/* SPDX-License-Identifier: BSD-2-Clause-Patent
 *
 * The protocol between two helpers and their hostile host, for spin. README.md says how to read it and what it leaves
 * out; run.py says which bounds and which dropped guards it is checked with.
 *
 * A statement in d_step or atomic is one access to what the rings share, with all that a vCPU does alone before and
 * after it. x86 keeps the order of stores; where a load must not overtake a store, the store is a locked instruction.
 */

#include "bounds.pml"
#include "state.pml"
#include "packet.pml"
#include "session.pml"
#include "batch.pml"
#include "totals.pml"
#include "host.pml"
