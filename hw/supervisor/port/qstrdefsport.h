// Names used only by the C code of this port.
