"""The owner of an SNP guest: whom it believes, and how a transport record reaches helpers without LAUNCH_SECRET."""
