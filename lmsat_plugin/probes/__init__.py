"""The built-in probes, one file each; all of them are plugins like anyone's."""
