package wire

// Usage is what was done with a host.
type Usage struct {
	// Calls says how often each call returned each code.
	Calls map[string]map[uint32]int `json:"calls"`
	// Objects is the number of automation objects that programs hold, Leaked that of those which programs held when they ended.
	Objects int `json:"objects"`
	Leaked  int `json:"leaked"`
	// Disks are the paths of the virtual disks that are open, each as often as it is.
	Disks []string `json:"disks,omitempty"`
}
