"""GUIDs of edk2 and of OVMF's GUIDed table, by what they name.

Source: edk2, MdePkg/Include/Guid/FirmwareFileSystem{2,3}.h, MdePkg/MdePkg.dec (capsules), OvmfPkg/OvmfPkgX64.fdf,
OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm, MdeModulePkg/MdeModulePkg.dec (LzmaCustomDecompress, SystemNvDataFv);
COCONUT-SVSM, stage1 (SVSM info).
"""

from __future__ import annotations

from uuid import UUID

from mh_abi import abi

FFS2 = UUID("8c8ce578-8a3d-4f1c-9935-896185c32dd3")
FFS3 = UUID("5473c07a-3dcb-4dca-bd6f-1e9689e7349a")
LZMA = UUID("ee4e5898-3914-4259-9d6e-dc7bd79403cf")
PAD_FILE = UUID(int=(1 << 128) - 1)
VARIABLES = UUID("fff12b8d-7696-4c8b-a985-2747075b4f50")
"""The file system of a volume that is a variable store."""

CAPSULES = (UUID("3b6686bd-0d76-4030-b70e-b5519e2fc5a0"), UUID("6dcbd5ed-e82d-4c44-bda1-7194199ad92a"))
"""What capsules begin with: EFI 1.10's, and UEFI's of firmware management."""

DXEFV = UUID("7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1")
"""Name of the volume that OVMF's DXE phase dispatches drivers from."""
VOLUMES = {
    DXEFV: "DXEFV",
    UUID("48db5e17-707c-472d-91cd-1613e7ef51b0"): "FVMAIN_COMPACT",
    UUID("763bed0d-de9f-48f5-81f1-3e90e1b1a015"): "SECFV",
    UUID("6938079b-b503-4e3d-9d24-b28337a25806"): "PEIFV",
}
"""What the .fdf files call the volumes of these names."""
VOLUME_TOP = UUID("1ba0062e-c779-4582-8566-336ae8f78f09")
"""The file that ends with the reset vector."""

VARIABLE_ARCH = UUID("1e5668e2-8481-11d4-bcf1-0080c73c8881")
FIRMWARE_VOLUME2 = UUID("220e73b6-6bdb-4413-8405-b974b108619a")

TABLE_FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
SEV_ES_RESET = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
LAUNCH_SECRET = UUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294")
KERNEL_HASHES = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
SEV_METADATA = UUID("dc886566-984a-4798-a75e-5585a7bf67cc")
TDX_METADATA = UUID("e47a6535-984a-4798-865e-4685a7bf8ec2")
IGVM_METADATA = UUID("784fa70e-3176-4677-8a20-04b68699e374")
SVSM_INFO = UUID("a789a612-0597-4c4b-a49f-cbb1fe9d1ddd")

IMAGE_FILE = UUID(abi.MH_IMAGE_FILE_GUID)
LOADER_FILE = UUID(abi.MH_LOADER_FILE_GUID)
FIRMWARE_ENTRY = UUID(abi.MH_FIRMWARE_ENTRY_GUID)
