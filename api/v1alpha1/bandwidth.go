package v1alpha1

// BandwidthLimits bounds the bytes per second, by the time of the week.
type BandwidthLimits struct {
	// timeZone of the windows: an IANA name such as Europe/Berlin or UTC.
	// +optional
	// +kubebuilder:default=UTC
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="timestamp('2026-01-01T00:00:00Z').getFullYear(self) > 0",message="the time zone is not known: use an IANA name such as Europe/Berlin"
	TimeZone string `json:"timeZone,omitempty"`

	// bytesPerSecond outside of the windows. Absent means no limit.
	// +optional
	// +kubebuilder:validation:Minimum=65536
	BytesPerSecond *int64 `json:"bytesPerSecond,omitempty"`

	// windows have limits of their own; the first one that is open counts.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Windows []BandwidthWindow `json:"windows,omitempty"`
}

// BandwidthWindow is a time of the week with a limit of its own.
//
// +kubebuilder:validation:XValidation:rule="self.start != self.end",message="a window that starts when it ends is never open; for a whole day use 00:00 to 24:00"
type BandwidthWindow struct {
	// days on which the window opens. Absent means every day.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=7
	Days []Weekday `json:"days,omitempty"`

	// start is when the window opens, as 08:00.
	// +required
	// +kubebuilder:validation:MinLength=5
	// +kubebuilder:validation:MaxLength=5
	// +kubebuilder:validation:Pattern=`^([01][0-9]|2[0-3]):[0-5][0-9]$`
	Start string `json:"start,omitempty"`

	// end is when it closes, as 18:00: on the next day where that is before the start.
	// +required
	// +kubebuilder:validation:MinLength=5
	// +kubebuilder:validation:MaxLength=5
	// +kubebuilder:validation:Pattern=`^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`
	End string `json:"end,omitempty"`

	// bytesPerSecond while it is open. Absent means no limit.
	// +optional
	// +kubebuilder:validation:Minimum=65536
	BytesPerSecond *int64 `json:"bytesPerSecond,omitempty"`
}

// Weekday is a day of the week.
// +kubebuilder:validation:Enum=Monday;Tuesday;Wednesday;Thursday;Friday;Saturday;Sunday
type Weekday string
