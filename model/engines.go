package model

// Engines are the names of the compute engines in this build, for --version.
func Engines() []string { return []string{"portable"} }

// Check says whether this build can compute on d at all, before anything is loaded.
func (d Device) Check() error {
	if d.kind == deviceGPU {
		return ErrNoCUDA
	}
	return nil
}
