"""What only a machine with systemd, AppArmor and cgroup v2 alone can show: ``make test-guest`` boots one."""
