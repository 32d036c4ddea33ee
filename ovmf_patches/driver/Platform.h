/** @file
  What the hypervisor is.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#ifndef MIGRATION_HELPER_PLATFORM_H_
#define MIGRATION_HELPER_PLATFORM_H_

/**
  Ask for KVM's migration control.

  @retval TRUE   The hypervisor is KVM and offers MSR_KVM_MIGRATION_CONTROL.
  @retval FALSE  It does not.
**/
BOOLEAN
HasMigrationControl (
  VOID
  );

#endif
