package emulator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// builds are the versions that Win32_OperatingSystem reports.
var builds = map[string]string{"2012": "9200", "2012R2": "9600", "2016": "14393", "2019": "17763", "2022": "20348", "2025": "26100"}

const build2016 = 14393

// configurationVersions are those of VMs that a host can run, oldest first ("Upgrade virtual machine version in Hyper-V", table "Supported virtual
// machine configuration versions"). New VMs get the last one. What the page no longer lists, hosts before 2016, is UNCONFIRMED.
var configurationVersions = map[string][]string{
	"2012":   {"4.0"},
	"2012R2": {"4.0", "5.0"},
	"2016":   {"5.0", "6.2", "7.0", "7.1", "8.0"},
	"2019":   {"5.0", "6.2", "7.0", "7.1", "8.0", "8.1", "8.2", "8.3", "9.0"},
	"2022":   {"8.0", "8.1", "8.2", "8.3", "9.0", "9.1", "9.2", "9.3", "10.0"},
	"2025":   {"8.0", "8.1", "8.2", "8.3", "9.0", "9.1", "9.2", "9.3", "10.0", "10.5", "11.0", "12.0"},
}

// build is the build number of the host's Windows.
func (c *hostConfig) build() int {
	n, _ := strconv.Atoi(builds[c.OSVersion])
	return n
}

// windowsVersion is like "10.0.20348". The kernel of 2012 calls itself 6.2, that of 2012 R2 6.3.
func (c *hostConfig) windowsVersion() string {
	kernel := map[string]string{"2012": "6.2", "2012R2": "6.3"}[c.OSVersion]
	if kernel == "" {
		kernel = "10.0"
	}
	return kernel + "." + builds[c.OSVersion]
}

// runs says whether the host can run VMs of a configuration version.
func (c *hostConfig) runs(version string) bool {
	return slices.Contains(configurationVersions[c.OSVersion], version)
}

// newest is the configuration version of VMs that are made on the host.
func (c *hostConfig) newest() string {
	all := configurationVersions[c.OSVersion]
	return all[len(all)-1]
}

func (c *hostConfig) checkVersion(version string) error {
	if c.runs(version) {
		return nil
	}
	return fmt.Errorf("version: Windows Server %s cannot run configuration version %s, only %s", c.OSVersion, version,
		strings.Join(configurationVersions[c.OSVersion], ", "))
}

// backsUpByWMI says whether the host has recovery checkpoints that a client can ask for, reference points and change tracking.
func (c *hostConfig) backsUpByWMI() bool { return c.build() >= build2016 }

// modernVM says whether a configuration version has production checkpoints and change tracking, which came with 6.2 ("Upgrade virtual machine version",
// table "Features enabled by virtual machine configuration version"; of change tracking that is what backup vendors say, UNCONFIRMED).
func modernVM(version string) bool {
	major, _, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(major)
	return n >= 6
}

// tracks says whether changes of the VM's disks can be tracked. The caller holds op or Host.mu.
func (v *vm) tracks() bool { return v.host.config.backsUpByWMI() && modernVM(v.config.Version) }
